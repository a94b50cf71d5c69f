"""One config for a whole alignment run. Presets in `deployments/presets` fill it; `--set` and files override them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from flows.models_config import ModelsConfig
from tasks.assess import AssessConfig
from tasks.calibration.config import QuestionsConfig
from tasks.collect import PromptsConfig
from tasks.compare import CompareConfig
from tasks.evaluation.bouts import MatchConfig
from tasks.gates.config import GatesConfig
from tasks.improve import ImproveConfig
from tasks.judge import JudgeConfig
from tasks.keep import KeepConfig
from tasks.label import LabelConfig
from tasks.preferences import PreferencesConfig
from tasks.respond import RespondConfig
from tasks.revise import ReviseConfig
from tasks.sample import SampleConfig
from tasks.schema import Settings
from tasks.sft import SFTStageConfig
from tasks.stage import RunContext
from tasks.training.config import RewardConfig
from tasks.training.rl_config import RLConfig

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ROOT / "deployments" / "presets"
CONSTITUTIONS = ROOT / "constitutions"


class ConfigError(ValueError):
    """A setting is unknown, missing or out of range; the message names it."""


def offer_constitutions(field: dict[str, Any]) -> None:
    """A form offers the constitutions that are there; elsewhere any file will do."""
    field["enum"] = sorted(f"constitutions/{path.name}" for path in CONSTITUTIONS.glob("*.yaml"))


class AlignConfig(Settings):
    """Everything an alignment run is told."""

    constitution: str = Field("constitutions/harmlessness.yaml", json_schema_extra=offer_constitutions)
    """File with the principles."""
    constitution_version: str = Field("", pattern=r"^([0-9a-f]{32})?$")
    """A published version in the store (32 hexadecimal digits), which takes the file's place. Empty: the file."""
    models: ModelsConfig
    """What the run starts from."""
    prompts: PromptsConfig
    """Red-team, helpful and held-out prompts."""
    run: RunContext = RunContext()
    """Where and how it runs: store, seed, what is made anew, and what else all stages share."""
    respond: RespondConfig = RespondConfig()
    """Initial completions."""
    revise: ReviseConfig = ReviseConfig()
    """Critique and revision."""
    improve: ImproveConfig = ImproveConfig()
    """Whether revisions are measured to be better, and what follows where they are not."""
    sft: SFTStageConfig = SFTStageConfig()
    """The SL policy."""
    keep: KeepConfig = KeepConfig()
    """Whether a small amendment keeps the SL policy."""
    compare: CompareConfig = CompareConfig()
    """Pairs to judge."""
    label: LabelConfig = LabelConfig()
    """AI preference labels."""
    gates: GatesConfig = GatesConfig()
    """What has to hold before labels may train anything."""
    preferences: PreferencesConfig = PreferencesConfig()
    """The mix that the reward model learns from."""
    reward: RewardConfig = RewardConfig()
    """The reward model."""
    rl: RLConfig = RLConfig()
    """The RL policy."""
    sample: SampleConfig = SampleConfig()
    """How policies are sampled for evaluation."""
    judge: JudgeConfig = JudgeConfig()
    """Who judges them."""
    match: MatchConfig = MatchConfig()
    """How they are compared with each other."""
    assess: AssessConfig = AssessConfig()
    """What a judge says of each completion alone."""
    questions: QuestionsConfig = QuestionsConfig()
    """Questions with known answers, for policies and feedback models."""


def load_config(presets: Sequence[str], file: str | None, settings: Sequence[str]) -> AlignConfig:
    """Presets, then a YAML file, then `a.b=value` settings, each over the one before.

    Raises: ConfigError: names what is unknown, missing or out of range, or what presets over the first disagree on.
    """
    over: dict[str, Any] = {}
    if file:
        merge(over, read_yaml(Path(file)))
    for setting in settings:
        merge(over, parse_setting(setting))
    contents = [read_yaml(preset_path(name)) for name in presets]
    expect_agreement(dict(zip(presets[1:], contents[1:], strict=True)), decided=leaves(over))
    values: dict[str, Any] = {}
    for content in (*contents, over):
        merge(values, content)
    try:
        return AlignConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def preset_path(name: str) -> Path:
    path = PRESETS / f"{name}.yaml"
    known = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"preset {name!r} does not exist; there are {', '.join(known)}")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} holds {type(values).__name__}, expected settings by name")
    return values


def expect_agreement(presets: dict[str, dict[str, Any]], decided: dict[str, Any]) -> None:
    """No two of these presets say different things of one setting, unless something over them decides it.

    Raises: ConfigError: names the setting and both.
    """
    said: dict[str, tuple[str, Any]] = {}
    for name, content in presets.items():
        for setting, value in leaves(content).items():
            other, earlier = said.setdefault(setting, (name, value))
            if earlier != value and setting not in decided:
                raise ConfigError(
                    f"presets {other} and {name} both set {setting}, to {earlier!r} and {value!r}; "
                    f"leave one out, or decide by --set {setting}=..."
                )


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their full names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Put `over` into `base`, section by section."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


def parse_setting(setting: str) -> dict[str, Any]:
    """`a.b=value` as nested settings; the value is read as YAML."""
    name, sign, text = setting.partition("=")
    if not sign or not name:
        raise ConfigError(f"--set {setting!r}: expected name=value, for example revise.num_rounds=2")
    try:
        value: Any = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: the value is not YAML: {error}") from None
    for key in reversed(name.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def explain(error: ValidationError) -> str:
    """Each problem on a line: the setting, what is wrong, and the value where there is one."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown setting{suggestion(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"{name}: is required; give it by a preset, a file or --set {name}=...")
        else:
            lines.append(f"{name}: {problem['msg']}, got {problem['input']!r}")
    return "\n".join(lines)


def suggestion(loc: tuple[int | str, ...]) -> str:
    """The known names of the section that `loc` ends in, nearest first."""
    import difflib

    section: Any = AlignConfig
    for part in loc[:-1]:
        section = section.model_fields[str(part)].annotation
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
