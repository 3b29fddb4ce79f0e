"""Pictures of a report: vector graphics, each with words for whoever cannot see it.

All words in a picture are outlines, so that it looks the same wherever it is shown; what they say
stands in its text alternative.
"""

from __future__ import annotations

from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.attack_chart import as_percent, draw_recognised
from dpacc.artifacts.document.content import Figure
from dpacc.artifacts.progress_chart import draw_progress
from dpacc.cli.report.gathered import Priced, RunFacts


def attack_figure(facts: Priced) -> Figure:
    """How many of those in the data an attacker recognises at most, beside guessing."""
    said = "; ".join(
        f"where {100 * each.false_positives:g}% of those not used are accused, at most "
        f"{rounded_up(as_percent(each.true_positives), digits=3)}% of those used are "
        f"recognised (guessing: {100 * each.false_positives:g}%)"
        for each in facts.bounds
    )
    unit = facts.claim.unit
    return Figure(
        svg=draw_recognised(bounds=facts.bounds, unit=unit, form="svg"),
        alternative=f"Bars: {said}.",
        caption=f"The most that any attack finds out about the presence of one {unit}",
    )


def course_figure(facts: RunFacts) -> Figure | None:
    """ε after each step, above held-out quality where it was measured.

    None where there is no course: ε is void, or all was charged at once, as a private search is.
    """
    if facts.void or len(facts.record.releases) < 2:
        return None
    svg = draw_progress(
        measurements=facts.course,
        target_epsilon=facts.budget,
        title="",
        guarantee=facts.claim,
        form="svg",
    )
    last = facts.course[-1]
    words = [f"A curve: ε rises from 0 to {rounded_up(last.epsilon)} after {last.step} steps"]
    if facts.budget is not None:
        words.append(f"the budget is {facts.budget:g}")
    measured = [each for each in facts.course if each.quality is not None]
    if measured:
        words.append(
            f"held-out {measured[0].metric} goes from {measured[0].shown} after step "
            f"{measured[0].step} to {measured[-1].shown} after step {measured[-1].step}"
        )
    above = " and held-out quality" if measured else ""
    return Figure(
        svg=svg, alternative="; ".join(words) + ".", caption=f"Privacy spent{above}, step by step"
    )
