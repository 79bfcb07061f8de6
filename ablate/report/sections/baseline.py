"""Each cell against the baseline."""

from ablate.analysis.findings import Findings
from ablate.report.section import Section, shown
from ablate.report.sections.effects import effect_data, effects_sheet, effects_table


def section(findings: Findings) -> Section:
    """Return the effect of going from the baseline to each other cell."""
    caption = "Each cell against the baseline, paired by seed"
    data = [effect_data(effect, findings) for effect in findings.cell_effects]
    return Section(
        "baseline",
        "Cells against the baseline",
        shown(effects_table("baseline-table", caption, findings.cell_effects, findings)),
        {"effects": data},
        (effects_sheet(data, findings),),
    )
