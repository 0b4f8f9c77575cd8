"""Two small networks teach each other on digits of which one label in five is wrong, beside the same networks alone.

18 short runs, four minutes on two CPU cores. Another run of this file shows the finished study again.
"""

import collegium

if __name__ == "__main__":  # runs are processes of their own, which import this file
    table = collegium.compare(
        methods="independent, independent:label_smoothing=0.1, dml:temperature=3",
        peers="2xresnet8",
        data={"name": "digits", "per_class": 60, "label_noise": 0.2},
        seeds=range(6),
        vary="split",  # a seed chooses the images and the wrong labels too, the same for every method
        contrasts="dml:temperature=3 vs independent",
        epochs=40,
        batch_size=32,
        schedule="cosine",
        weight_decay=0.02,  # tuned for networks alone, results/demo; with less, teaching looks better than it is
        evaluate_every=40,
        study="runs/demo",
    )
    print(table)
    print("One of two networks is what you deploy: it costs as much as one that was trained alone.")
    print(
        'The page of this study: runs/demo/report.html. Its trained networks: collegium.load_peer("runs/demo/runs/...")'
    )
