"""What a terminal shows: live progress, plans and summaries. The only home of rich."""

from ablate.cli.display.care import show_findings, show_garbage, show_removed
from ablate.cli.display.explained import show_explained
from ablate.cli.display.plans import plan_data, show_cells, show_networks, show_plan
from ablate.cli.display.progress import Terminal
from ablate.cli.display.results import rates_data, show_comparison, show_ran, show_rates, show_tuned
from ablate.cli.display.standing import show_status, show_studies, status_data, status_line, watch_status

__all__ = [
    "Terminal", "plan_data", "rates_data", "show_cells", "show_comparison", "show_explained", "show_findings", "show_garbage",
    "show_networks", "show_plan", "show_ran", "show_rates", "show_removed", "show_status", "show_studies", "show_tuned", "status_data",
    "status_line", "watch_status",
]  # fmt: skip
