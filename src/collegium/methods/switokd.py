"""Switchable online knowledge distillation."""

import torch
from torch import Tensor

from collegium.cohort import Cohort, CohortSpec, PeerOutputs
from collegium.errors import UsageError
from collegium.losses import class_probabilities, cross_entropy, distill, others
from collegium.method import Method, ParameterGroup, Progress, Terms, positive, trainable
from collegium.ranks import mean_over_ranks


class SwitOKD(Method):
    r"""A larger and a smaller network teach each other; while the larger is too far ahead, it waits.

    With the teacher's prediction :math:`p_t`, the student's :math:`p_s` and batch means of the distances,

    .. math:: G = \|p_s - p_t\|_1, \qquad
        \delta = \|p_s - y\|_1 - e^{-\frac{\|p_t - y\|_1}{\|p_s - y\|_1 + \|p_t - y\|_1}} \, \|p_t - y\|_1
    .. math:: L_s = CE(z_s, y) + T^2 KL(p_t \,\|\, p_s), \qquad
        L_t = w \, \big[ CE(z_t, y) + T^2 KL(p_s \,\|\, p_t) \big]

    where w is 0 (expert mode) in a batch with :math:`G > \delta` and :math:`\|p_t - y\|_1 < \|p_s - y\|_1`, and else 1
    (learning mode). In expert mode the teacher takes no step: its weights stay as they are.

    Source: Qian, Wang, Yin, Hong and Wang, "Switchable Online Knowledge Distillation", ECCV 2022,
    https://arxiv.org/abs/2209.04996; code https://github.com/hfutqian/SwitOKD. With more than two peers one is the
    teacher of all others, which also teach each other (the authors' 1T2S): each student has a w of its own for what
    it teaches the teacher, who waits only while every student's w is 0. Terms are summed.

    Differs from the code: T^2 is ours, the code has T = 1 alone. Where peers share a trunk, which the source's do not,
    it belongs to the students and never waits. On CIFAR-100 the code gives the student a tenth of the teacher's
    learning rate, here they have one, and its two teachers with one student (2T1S) are not here. For several students
    the code reads the exponent of one student's threshold from another's distances; here each has its own. A teacher
    of several students who waits takes a step without gradient there, so that its momentum and weight decay go on.

    Known from: the authors' code.

    When to use: with a larger and a smaller network, the larger one named by ``teacher``. A secondary account gives
    71.75 % for ResNet-18 on ImageNet.

    Args:
        spec: the cohort's shapes.
        teacher: the peer that is the teacher, counted from 0; the largest network should be.
        temperature: T, softens all predictions, also those in the distances; 1 in the code.
    """

    example = "--peers resnet20,resnet56"
    logits_only = True
    may_rest = frozenset({"teacher"})

    def __init__(self, spec: CohortSpec, *, teacher: int = 1, temperature: float = 1.0) -> None:
        super().__init__(spec)
        if not 0 <= teacher < spec.num_peers:
            raise UsageError(
                f"SwitOKD's teacher must be one of the peers 0 to {spec.num_peers - 1}, not {teacher}; "
                "set it with --method.teacher"
            )
        self.teacher = teacher
        self.deployed_peer = 0 if teacher else 1
        self.temperature = positive("SwitOKD's temperature", temperature)
        self.has_trunk = spec.trunk_shape is not None

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        teacher = trainable(cohort.branches[self.teacher])
        ids = {id(p) for p in teacher}
        rest = [p for p in trainable(cohort) if id(p) not in ids]
        return {"peers": [{"params": rest}], "teacher": [{"params": teacher}]}

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        z, z_t = out.logits, out.logits[self.teacher]
        students = others(z, self.teacher)
        learning = self._learning(students, z_t, target)
        taught = [distill(z[k], others(z, k), self.temperature) for k in range(len(z)) if k != self.teacher]
        replies = torch.stack([distill(z_t, z_s, self.temperature) for z_s in students])
        own = {
            "ce_teacher": torch.where(learning.any(), cross_entropy(z_t, target), 0.0),
            "kd_teacher": torch.where(learning, replies, 0.0).sum(),
        }
        terms = {"ce": cross_entropy(students, target), "kd": torch.stack(taught).sum()}
        # The students' player takes the gradient of a trunk, which the teacher's terms reach too.
        return {"peers": {**terms, **own} if self.has_trunk else terms, "teacher": own}

    @torch.no_grad()
    def _learning(self, students: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Whether the teacher learns from each student: (M - 1, B, C), (B, C) -> (M - 1,)"""
        p_s, p_t = ((z.float() / self.temperature).softmax(-1) for z in (students, teacher))
        y = class_probabilities(target, teacher.shape[-1])
        student_error, teacher_error, gap = _distance(p_s, y), _distance(p_t, y), _distance(p_s, p_t)
        ratio = teacher_error / (student_error + teacher_error).clamp_min(1e-12)
        threshold = student_error - torch.exp(-ratio) * teacher_error
        return (gap <= threshold) | (teacher_error >= student_error)


def _distance(p: Tensor, q: Tensor) -> Tensor:
    """Sum of absolute differences over classes, mean over the batch: (..., B, C), (B, C) -> (...)"""
    return mean_over_ranks((p - q).abs().sum(-1).mean(-1))
