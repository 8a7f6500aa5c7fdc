"""Configuration: where a field's value comes from, and what is said about wrong ones."""

import dataclasses

import pytest
from absl import flags

from serving.program import UserError
from training import train
from training.config import RESUMABLE, Config, make_config
from training.config_flags import DATA_FIELDS, define_flags
from training.layer_options import parse_options
from training.presets import PRESETS
from training.task_defaults import TASK_DEFAULTS
from zoo.cells import CELLS
from zoo.models import TASKS
from zoo.text import TOKENIZERS

FIELDS = {field.name: field for field in dataclasses.fields(Config)}


@pytest.fixture
def configured(run_program, monkeypatch):
    """The Config that zoo-train makes of a command line."""
    made = []
    monkeypatch.setattr(train, "train", lambda made_config: made.append(made_config) or {})

    def parse(*arguments):
        assert run_program(train, *arguments) == (0, "{}\n", "")
        return made[-1]

    return parse


@pytest.fixture
def complaint(run_program, monkeypatch):
    """Exit code and message of zoo-train, which does not get as far as training."""
    monkeypatch.setattr(train, "train", lambda made_config: pytest.fail(f"{made_config} was taken"))

    def run(*arguments):
        code, out, err = run_program(train, *arguments)
        assert out == ""
        assert err.startswith("zoo-train: ")
        assert err.count("\n") == 1
        return code, err

    return run


class TestPrecedence:
    def test_without_flags_all_is_default(self, configured):
        assert configured() == Config()

    @pytest.mark.parametrize("preset", sorted(PRESETS))
    def test_a_preset_overrules_defaults(self, configured, preset):
        of_task = TASK_DEFAULTS.get(PRESETS[preset].get("task", Config.task), {})
        expected = {**dataclasses.asdict(Config()), **of_task, **PRESETS[preset]}
        assert dataclasses.asdict(configured(f"--preset={preset}")) == expected
        assert expected != dataclasses.asdict(Config())

    @pytest.mark.parametrize("task", sorted(TASK_DEFAULTS))
    def test_a_task_overrules_defaults_and_flags_a_task(self, configured, task):
        expected = {**dataclasses.asdict(Config()), "task": task, **TASK_DEFAULTS[task]}
        assert dataclasses.asdict(configured(f"--task={task}")) == expected
        assert configured(f"--task={task}", "--units=7", "--tokenizer=characters").units == 7

    def test_a_flag_overrules_a_preset(self, configured):
        made = configured("--preset=zaremba_small", "--units=7", "--optimizer=adamw")
        assert (made.units, made.optimizer) == (7, "adamw")
        assert made.layers == PRESETS["zaremba_small"]["layers"]

    def test_a_flag_overrules_a_preset_with_what_happens_to_be_the_default(self, configured):
        given = {"layers": 1, "optimizer": "adam", "cell_options": "", "initializer_scale": 0.0}
        for name, value in given.items():
            assert FIELDS[name].default == value
            assert PRESETS["zaremba_small"][name] != value
        made = configured("--preset=zaremba_small", *(f"--{name}={value}" for name, value in given.items()))
        assert {name: getattr(made, name) for name in given} == given

    def test_every_field_is_a_flag(self, configured):
        starts = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
        text = {
            **{"cell_options": "seed=1", "output_options": "order=5", "prune": "0,1"},
            **{"discount_fallback": "0,1,2", "model": "recurrent"},  # which alone knows the other tasks
            **{"input_options": "highways=2"},
            **dict.fromkeys(starts, "identity"),
        }
        numbers = {"int": 3, "float": 0.25}
        given = {}
        for name, field in FIELDS.items():
            choices = field.metadata["choices"]
            other = text.get(name) or (choices[-1] if choices else numbers.get(field.type, "word"))
            given[name] = (not field.default) if field.type == "bool" else other
        made = configured(*(f"--{name}={value}" for name, value in given.items()))
        assert dataclasses.asdict(made) == given

    def test_help_explains_every_field(self, run_program):
        code, out, _ = run_program(train, "--help")
        assert code == 0
        for name, field in FIELDS.items():
            assert f"  --{name}=" in out
            assert field.metadata["help"].split()[0] in out
        unwrapped = "".join(out.split())  # a long list of choices is wrapped within names
        assert all(name in unwrapped for names in (PRESETS, CELLS, TOKENIZERS, TASKS) for name in names)


class TestComplaints:
    @pytest.mark.parametrize(
        ("flag", "names"),
        [
            ("--cell=lstn", CELLS),
            ("--task=poetry", TASKS),
            ("--tokenizer=letters", TOKENIZERS),
            ("--optimizer=adamm", ("sgd", "momentum", "adam", "adamw")),
            ("--schedule=linear", ("constant", "cosine", "plateau", "decay")),
            ("--strategy=tpu", ("one_device", "mirrored", "multi_worker")),
            ("--text_mode=verse", ("stream", "lines")),
            ("--skip=highways", ("none", "residual", "dense", "highway")),
            ("--precision=float8", ("float32", "mixed_bfloat16", "float64")),
        ],
    )
    def test_about_a_name_list_the_right_ones(self, complaint, flag, names):
        code, message = complaint(flag)
        name, value = flag.lstrip("-").split("=")
        assert code == 2
        assert f"--{name}={value}" in message
        assert all(name in message for name in names)

    def test_about_a_preset_list_the_right_ones(self, complaint):
        code, message = complaint("--preset=char_smal")
        assert code == 1
        assert "--preset=char_smal" in message
        assert all(preset in message for preset in PRESETS)

    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            ("--units=0", "at least 1"),
            ("--batch_size=-1", "at least 1"),
            ("--dropout=-0.1", "at least 0"),
            ("--dropout=1", "below 1"),
            ("--dropout=nan", "at least 0"),
            ("--zoneout=1", "below 1"),
            ("--weight_drop=1.5", "below 1"),
            ("--recurrent_dropout=-1", "at least 0"),
            ("--embedding_dropout=1", "below 1"),
            ("--output_dropout=1", "below 1"),
            ("--beta_1=1", "below 1"),
            ("--recurrent_initializer=orthogonl", "no Keras initializer"),
            ("--learning_rate=nan", "at least 0"),
            ("--max_bad_steps=0", "at least 1"),
            ("--cell_options=activation", "NAME=VALUE"),
            ("--cell_options==3", "NAME=VALUE"),
            ("--cell_options=forget_biass=1", "LSTM has bias_initializer, chrono, forget_bias, "),
            ("--cell_options=forget_bias=abc", "must be a number"),
            ("--cell_options=chrono=1.5", "must be a whole number"),
            ("--cell_options=seed=true", "must be a whole number"),
        ],
    )
    def test_about_a_value_out_of_range(self, complaint, flag, expected):
        code, message = complaint(flag)
        assert code == 1
        assert flag.split("=")[0] in message
        assert expected in message

    @pytest.mark.parametrize(
        ("word", "expected"),
        [("--units=many", "--units=many"), ("--dropout=some", "--dropout=some"), ("--unit=3", "unit")],
    )
    def test_about_what_is_no_flag_or_number(self, complaint, word, expected):
        code, message = complaint(word)
        assert code == 2
        assert expected in message
        assert "zoo-train --help" in message

    def test_about_a_word_without_a_flag(self, complaint):
        code, message = complaint("char_small")
        assert code == 1
        assert "'char_small'" in message

    def test_about_an_option_that_is_true_or_false(self):
        with pytest.raises(UserError, match=r"--cell_options=layer_norm=1\.0: must be true or false"):
            Config(cell="light_gru", cell_options="layer_norm=1")
        Config(cell="light_gru", cell_options="layer_norm=false,seed=3,bias_initializer=ones")

    def test_are_user_errors_in_python_too(self):
        with pytest.raises(UserError, match=r"--cell=lstn: must be one of .*lstm"):
            Config(cell="lstn")
        with pytest.raises(UserError, match="--preset=x"):
            make_config("x", {})


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("forget_bias=0", {"forget_bias": 0.0}),
        ("activation=tanh,forget_bias=1.5", {"activation": "tanh", "forget_bias": 1.5}),
        ("a=true,b=False,c=1e-3,d=-2", {"a": True, "b": False, "c": 0.001, "d": -2.0}),
        ("name=x=y", {"name": "x=y"}),
    ],
)
def test_cell_options(text, options):
    parsed = parse_options("cell_options", text)
    assert parsed == options
    assert {name: type(value) for name, value in parsed.items()} == {
        name: type(value) for name, value in options.items()
    }


def test_data_flags_of_other_programs_are_fields():
    assert set(DATA_FIELDS) <= set(FIELDS)
    assert set(FIELDS) >= RESUMABLE
    assert callable(define_flags)
    assert "units" not in flags.FLAGS, "a test left its flags behind"
