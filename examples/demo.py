"""Two small networks teach each other on digits of which one label in five is wrong, beside the same networks alone.

24 short runs, about two minutes on two CPU cores: 8 of the 24 splits of results/digits_wrong_labels. Another
run of this file shows the finished study again.
"""

import collegium

table = collegium.compare(
    config="digits_wrong_labels",  # its learning rate and weight decay are those at which networks alone are best
    methods="independent, independent:label_smoothing=0.2, dml:temperature=3",
    seeds=range(8),
    vary="split",  # a seed chooses the images and the wrong labels too, the same for every method
    contrasts="dml:temperature=3 vs independent",
    study="runs/demo",
)
print(table)
print("One of two networks is what you deploy: it costs as much as one that was trained alone.")
print('The page of this study: runs/demo/report.html. Its trained networks: collegium.load_peer("runs/demo/runs/...")')
