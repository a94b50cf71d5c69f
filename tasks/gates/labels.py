"""Gates over the labels of one evaluator: what they say of the model that gave them."""

from collections.abc import Sequence

from tasks.gates.config import GatesConfig
from tasks.gates.intervals import Measured, correlation, mean, ratio, share
from tasks.gates.pairs import LabelSet, Pair
from tasks.gates.verdict import Verdicts
from tasks.schema import Gate

JUDGED = "comparisons judged in both orders"
ALONE = "Every completion was scored alone, so there is no order or position that could matter"


def label_gates(found: LabelSet, evaluator: str, config: GatesConfig) -> list[Gate]:
    """Every gate over one evaluator's labels."""
    verdicts = Verdicts(config, evaluator)
    gates = [failures(found, verdicts), refusals(found, verdicts), contradictions(found, verdicts)]
    for gate in (swap_invariance, position_bias, chance, length_bias):
        gates.append(gate(found, verdicts))
    return gates


def failures(found: LabelSet, verdicts: Verdicts) -> Gate:
    """Share of labels that could not be given."""
    limit, measured = verdicts.config.max_failures, share(found.num_bad, found.num_asked)
    worst = f", most often: {found.reasons.most_common(1)[0][0]}" if found.reasons else ""
    says = f"{found.num_bad} of {found.num_asked} labels are refused, unparsable or failed{worst}; at most {limit:.1%}"
    advice = "What is left may be another kind of comparison: mend the cause and label those again"
    return verdicts.gate("failures", measured, limit, measured.value <= limit, says, advice, "labels")


def refusals(found: LabelSet, verdicts: Verdicts) -> Gate:
    """Share of labels where the feedback model would not judge: it says so, or puts no probability on an answer."""
    limit, measured = verdicts.config.max_refusals, share(found.num_refusing, found.num_asked)
    says = (
        f"The feedback model declines to judge in {found.num_refusing} of {found.num_asked} labels; at most {limit:.1%}"
    )
    advice = "It will decline where harm is worst: judge with a model that is not tuned to refuse, or without reasoning"
    return verdicts.gate("refusals", measured, limit, measured.value <= limit, says, advice, "labels")


def contradictions(found: LabelSet, verdicts: Verdicts) -> Gate:
    """Share of reasoned labels whose answer is another than their reasoning concludes."""
    limit = verdicts.config.max_contradictions
    if not found.num_reasoned:
        return verdicts.nothing(
            "contradictions", limit, "No label was reasoned, so no answer can contradict its reasons"
        )
    measured = share(found.num_contradicting, found.num_concluding)
    says = (
        f"{found.num_contradicting} answers contradict their reasoning, of {found.num_concluding} that say which is "
        f"better ({found.num_reasoned} reasoned labels); at most {limit:.1%}"
    )
    advice = "The reasons are not why it answers so: do not show them as explanations, and label without reasoning"
    holds = measured.value <= limit
    return verdicts.gate("contradictions", measured, limit, holds, says, advice, "reasonings that say which is better")


def swap_invariance(found: LabelSet, verdicts: Verdicts) -> Gate:
    """How much a label changes when the same two completions change places, beside how much it says at all."""
    limit = verdicts.config.max_swap_loss
    if is_shown_alone(found):
        return verdicts.nothing("swap_invariance", limit, ALONE)
    gaps = [abs(pair.ab - pair.ba) for pair in found.pairs]
    measured = ratio(gaps, [abs(pair.ab - 0.5) + abs(pair.ba - 0.5) for pair in found.pairs])
    agreeing = share(sum((pair.ab - 0.5) * (pair.ba - 0.5) > 0 for pair in found.pairs), len(found.pairs))
    says = (
        f"Changing places takes back {measured.value:.0%} of what the labels say; at most {limit:.0%}. P(a is better) "
        f"moves by {mean(gaps).value:.2f} on average, and both orders choose the same side in {agreeing.value:.0%}"
    )
    advice = "The order decides more than the texts: use a stronger feedback model, or demonstrations of both answers"
    return verdicts.gate("swap_invariance", measured, limit, measured.value <= limit, says, advice, JUDGED)


def position_bias(found: LabelSet, verdicts: Verdicts) -> Gate:
    """The same-position rate of RLAIF (2309.00267): both orders choose the one that stands first, or last."""
    limit, least = verdicts.config.max_same_position, verdicts.config.indifference
    if is_shown_alone(found):
        return verdicts.nothing("position_bias", limit, ALONE)
    first = sum(pair.ab > 0.5 + least and pair.ba < 0.5 - least for pair in found.pairs)
    last = sum(pair.ab < 0.5 - least and pair.ba > 0.5 + least for pair in found.pairs)
    measured = share(first + last, len(found.pairs))
    says = (
        f"Both orders choose the same position in {measured.value:.1%} ({first} the first, {last} the last); "
        f"at most {limit:.0%}"
    )
    advice = "It answers by position: use a stronger feedback model, or demonstrations of both answers"
    return verdicts.gate("position_bias", measured, limit, measured.value <= limit, says, advice, JUDGED)


def chance(found: LabelSet, verdicts: Verdicts) -> Gate:
    """Whether the two orders say anything of each other: by chance they do not, whatever position they prefer."""
    limit = verdicts.config.min_order_correlation
    if is_shown_alone(found):
        return verdicts.nothing("chance", limit, ALONE)
    measured = correlation([pair.ab for pair in found.pairs], [pair.ba for pair in found.pairs])
    says = (
        f"The two orders' probabilities correlate by {measured.value:.2f} ({interval(measured)}); "
        f"the whole interval has to be above {limit:g}"
    )
    advice = "The labels are no better than drawn by lot: check the model, its chat template and the questions"
    return verdicts.gate("chance", measured, limit, measured.low > limit, says, advice, JUDGED)


def length_bias(found: LabelSet, verdicts: Verdicts) -> Gate:
    """How often the longer completion is the better, where one is longer and one is better."""
    limit = verdicts.config.max_longer
    if is_shown_alone(found):
        return verdicts.nothing("length_bias", limit, ALONE)
    decided = decided_by_length(found.pairs, verdicts.config.indifference)
    measured = share(sum(decided), len(decided))
    says = f"The longer completion is the better in {measured.value:.1%} of {len(decided)} comparisons; "
    says += f"at most {limit:.0%}"
    advice = "It may only measure length: look at the gate of canaries, half of whose safe sides are the shorter"
    samples = "comparisons have a clear label and completions of different length"
    return verdicts.gate("length_bias", measured, limit, measured.value <= limit, says, advice, samples)


def decided_by_length(pairs: Sequence[Pair], indifference: float) -> list[bool]:
    """Whether the longer side is the better, of each pair of unequal length whose averaged label is no tie."""
    clear = [pair for pair in pairs if pair.longer and abs(pair.averaged - 0.5) > indifference]
    return [(pair.averaged > 0.5) == (pair.longer > 0) for pair in clear]


def is_shown_alone(found: LabelSet) -> bool:
    return found.num_asked > 0 and found.num_shown_together == 0


def interval(measured: Measured) -> str:
    return f"{measured.low:.2f} to {measured.high:.2f}"
