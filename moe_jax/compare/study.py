"""A study: the gin file that says which arms are compared, on which seeds, and how.

    Study.question = 'Does expert choice reach the loss of GShard top-2 in fewer steps?'
    Study.common = ['runs/quickstart.gin', 'STEPS=400']
    Study.arms = {
        'expert_choice': ['routers/expert_choice.gin'],
        'gshard': ['routers/gshard_top2.gin'],
    }
    Study.baseline = 'gshard'

An item of `Study.common` or of an arm is a gin file, if it ends in `.gin`, or a binding, as after
`--gin.` on the command line. An arm is the configuration of the common items, then its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from moe_jax.compare import plan_files
from moe_jax.compare.plan_rules import (
    bad_names,
    check_distinct,
    check_items,
    check_seeds,
    raise_all,
)
from moe_jax.compare.records import StudyPlan
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, nearest
from moe_jax.registration import configurable
from moe_jax.settings import Name, Positive, Seed, Settings, counted, rule

MatchedBy = Literal["steps", "tokens", "slots", "flops", "seconds"]
# Appended to the name of the baseline in the directory of its A/A runs.
AA_SUFFIX = "_aa"
# Added to the seed of the A/A runs' initial parameters.
AA_OFFSET = 1000
_LARGEST_SEED = 2**32 - 1


@configurable
@dataclasses.dataclass(frozen=True)
class Study(Settings):
    """What a study compares.

    Attributes:
        question: the question in one sentence.
        common: items that all arms share.
        arms: the items of each arm, by its name. Their order is that of the report.
        baseline: name of the arm that the others are compared with.
        seeds: seeds of the comparison; runs of two arms with the same seed have the same data
            order.
        aa: run the baseline again with other initial parameters, to see whether the study finds a
            difference where there is none.
        matched_by: the cost in which the answer is given.
        descriptions: what an arm is in a few words, by its name; by default its items.
        learning_rates: learning rates to try for each arm; with one, no trials are run; without
            any, the rate is that of the configuration.
        arm_rates: learning rates of single arms, instead of `learning_rates`.
        rate_setting: the binding that a learning rate sets.
        rate_seed: seed of the trials of learning rates.
        rate_items: bindings of the trials only, such as `STEPS=300` for shorter ones.
        targets: held-out causal losses in nats per token, to report the cost of.
        timing_rounds: rounds of the interleaved timing of the arms' steps; 0 for no timing.
        leak_test_steps: training steps of the random-token test; 0 for no test.
    """

    question: str
    common: tuple[Name, ...]
    arms: Mapping[Name, tuple[Name, ...]]
    baseline: Name
    seeds: tuple[Seed, ...] = (1, 2, 3)
    aa: bool = True
    matched_by: MatchedBy = "steps"
    descriptions: Mapping[Name, str] = dataclasses.field(default_factory=dict)
    learning_rates: tuple[Positive, ...] = ()
    arm_rates: Mapping[Name, tuple[Positive, ...]] = dataclasses.field(default_factory=dict)
    rate_setting: Name = "WarmupCosine.peak"
    rate_seed: Seed = 0
    rate_items: tuple[Name, ...] = ()
    targets: tuple[Positive, ...] = ()
    timing_rounds: Annotated[int, counted("no timing")] = 20
    leak_test_steps: Annotated[int, counted("no test")] = 300

    @staticmethod
    @rule
    def _names_are_arms(
        arms: Mapping[str, tuple[str, ...]],
        baseline: str,
        descriptions: Mapping[str, str],
        arm_rates: Mapping[str, tuple[float, ...]],
    ) -> None:
        named = {
            "baseline": [baseline],
            "descriptions": list(descriptions),
            "arm_rates": list(arm_rates),
        }
        raise_all(
            f"Study.{setting} names the arm {name!r}, which is not in Study.arms; arms: "
            f"{', '.join(arms)}.{nearest(name, arms)}"
            for setting, names in named.items()
            for name in names
            if name not in arms
        )

    @staticmethod
    @rule
    def _arms_can_be_directories(arms: Mapping[str, tuple[str, ...]], baseline: str) -> None:
        if not arms:
            raise UserError("Study.arms has no arm")
        raise_all(f"Study.arms: {message}" for message in bad_names(arms))
        if baseline + AA_SUFFIX in arms:
            raise UserError(
                f"Study.arms: the name {baseline + AA_SUFFIX!r} is that of the baseline's A/A runs"
            )

    @staticmethod
    @rule
    def _items_are_files_or_bindings(
        common: tuple[str, ...], arms: Mapping[str, tuple[str, ...]]
    ) -> None:
        own = {f"arms[{name!r}]": items for name, items in arms.items()}
        check_items("Study", {"common": common, **own})

    @staticmethod
    @rule
    def _values_are_distinct(
        seeds: tuple[int, ...],
        learning_rates: tuple[float, ...],
        arm_rates: Mapping[str, tuple[float, ...]],
    ) -> None:
        check_seeds("Study", seeds)
        lists = {"learning_rates": learning_rates}
        lists |= {f"arm_rates[{name!r}]": rates for name, rates in arm_rates.items()}
        check_distinct("Study", lists)
        raise_all(
            f"Study.{name}: two of {values} have the same name to six digits, which is that of "
            "their directories"
            for name, values in lists.items()
            if len(set(map(rate_text, values))) < len(values)
        )

    @staticmethod
    @rule
    def _aa_runs_have_seeds(seeds: tuple[int, ...], aa: bool) -> None:
        if aa and seeds and max(seeds) > _LARGEST_SEED - AA_OFFSET:
            raise UserError(
                f"Study.seeds: {max(seeds)} is too large: the A/A runs have Train.seed + "
                f"{AA_OFFSET}, which may be {_LARGEST_SEED} at most"
            )

    @staticmethod
    @rule
    def _trials_have_a_seed_of_their_own(
        seeds: tuple[int, ...],
        rate_seed: int,
        learning_rates: tuple[float, ...],
        arm_rates: Mapping[str, tuple[float, ...]],
    ) -> None:
        tries = any(len(rates) > 1 for rates in (learning_rates, *arm_rates.values()))
        if tries and rate_seed in seeds:
            raise UserError(
                f"Study.rate_seed = {rate_seed} is in Study.seeds = {seeds}: the seed that chooses "
                "a learning rate must not be used in the comparison"
            )

    def rates(self, arm: str) -> tuple[float, ...]:
        """Returns the learning rates to try for an arm."""
        return tuple(self.arm_rates.get(arm, self.learning_rates))

    def description(self, arm: str) -> str:
        """Returns what an arm is in a few words."""
        return self.descriptions.get(arm) or ", ".join(self.arms[arm]) or "the common configuration"


@dataclasses.dataclass(frozen=True)
class LoadedStudy:
    """A study with the configuration that it was read from.

    Attributes:
        study: the study.
        bindings: bindings of the command line that apply to all arms.
        search_paths: directories in which gin files of the arms are looked up.
        text: text of the gin files.
    """

    study: Study
    bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    text: str

    def plan(self, command: str) -> StudyPlan:
        """Returns the plan of the study, with the command line that runs it."""
        study = self.study
        tries = any(len(study.rates(arm)) > 1 for arm in study.arms)
        return StudyPlan(
            question=study.question,
            baseline=study.baseline,
            arms={arm: study.description(arm) for arm in study.arms},
            aa=study.aa,
            seeds=tuple(study.seeds),
            matched_by=study.matched_by,
            targets=tuple(study.targets),
            learning_rates=tuple(study.learning_rates),
            rate_seed=study.rate_seed if tries else None,
            command=command,
            source=self.text,
        )


def load_study(source: ConfigSource) -> LoadedStudy:
    """Reads a study from gin files; bindings of the study apply to it, all others to the arms.

    Gin files of the arms are looked up beside the study's files too.

    Raises:
        UserError: for all mistakes in the study, one in a line.
    """
    places = "Study.common or Study.arms"
    read = plan_files.read_plan(source, Study.settings_name, _items, places)
    return LoadedStudy(read.plan, read.bindings, read.search_paths, read.text)


def _items(study: Study) -> list[str]:
    return [item for items in (study.common, *study.arms.values()) for item in items]


def rate_text(rate: float) -> str:
    """Returns a learning rate as it is written in the names of its trials."""
    return f"{rate:g}"
