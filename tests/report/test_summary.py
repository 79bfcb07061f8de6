"""What a terminal shows at the end of a run."""

from reports import (
    HELPS,
    ROTATION,
    by_level,
    found,
    nothing,
)

from ablate.report import headline, summary, words


class TestSummary:
    def test_the_terminal_gets_a_row_a_cell_and_a_sentence_an_effect(self, full):
        made = summary.make(full)
        assert made.rows[0] == ("baseline", "5", "0", "0", "0", "90.20 %", "0.16", "10.8")
        assert len(made.rows) == len(full.cells)
        assert all(len(row) == len(made.columns) for row in made.rows)
        assert made.sentences == tuple(words.sentences(full))
        assert made.headline == tuple(headline.headline(full))

    def test_failed_and_missing_runs_are_counted(self, full):
        rows = {row[0]: row for row in summary.make(full).rows}
        assert summary.make(full).columns == (
            "cell",
            "n",
            "diverged",
            "crashed",
            "not run",
            "mean",
            "sd",
            "s/epoch",
        )
        assert rows["batch_norm=false"][1:5] == ("4", "1", "0", "0")
        assert rows["rotation=15"][1:5] == ("4", "0", "1", "0")
        assert summary.make(full).counted == "24 diverged, 1 crashed, 1 not run"

    def test_claims_are_answered_in_words(self, full):
        assert (
            summary.make(full)
            .claims[0]
            .startswith('"RandomCrop beats RandomResizedCrop": confirmed, +3.05 points [')
        )
        assert ", from" not in summary.make(nothing()).claims

    def test_a_claim_on_another_metric_names_it(self):
        raw = ROTATION | {"claim": [{"text": "t", "expect": "augment.rotation: 0 > 15 on test/loss"}]}
        of = found(raw, by_level({("augment.rotation", "15"): HELPS}))
        assert summary.make(of).claims == (
            '"t": confirmed, test/loss +0.00930 [0.00855, 0.01005] from 15 to 0 (lower is better)',
        )
