"""generate: several prompts, domains and seeds; groups, strength and mixes of persons."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
import torch

from harald import cli
from harald.injection.person_file import load_person, save_person
from harald.records import PersonTokens
from tests.models import base

PROMPT = "photo of <person> in a park"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two person files, a and b."""
    root = tmp_path_factory.mktemp("root")
    groups = (("face", 2), ("hair", 2))
    for seed, name in enumerate("ab"):
        tokens = torch.randn(4, base().width, generator=torch.Generator().manual_seed(seed))
        save_person(root / name, PersonTokens(tokens, groups, "output", base().repo, 1, "run/step"))
    return root


@pytest.fixture
def generate(root, monkeypatch):
    """The folder that a run of generate wrote."""
    monkeypatch.setenv("HARALD_ROOT", str(root))

    def call(name: str, *flags: str, person: str = "a", prompt: str = PROMPT) -> Path:
        known = ["--preset", "tiny", "--overrides", '{"generate.steps": 2}', "--run-name", name]
        cli.main(["generate", *known, "--person", person, "--prompt", prompt, *flags])
        return root / "output" / "generate" / name

    return call


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_every_prompt_in_every_domain_with_every_seed(generate):
    two = '["<person> in a park", "<person> asleep"]'
    folder = generate("many", "--domain", "photo,comic", "--seeds", "3,7", prompt=two)
    names = {f"prompt_0{p}_{d}_seed_{s}.png" for p in (1, 2) for d in ("photo", "comic") for s in (3, 7)}
    assert set(pixels(folder)) == names
    alone = pixels(generate("alone", "--seed", "7"))
    assert list(alone) == ["seed_7.png"]
    assert alone["seed_7.png"] == pixels(folder)["prompt_01_photo_seed_7.png"]
    assert (folder / "report.html").read_text().count("<img") == 8


def test_domain_is_asked_for_in_words_unless_the_prompt_has_them(generate):
    silent = pixels(generate("silent", "--domain", "photo,comic", prompt="<person> in a park"))
    assert silent["photo_seed_0.png"] != silent["comic_seed_0.png"]
    for domain in ("photo", "comic"):
        said = pixels(generate(domain, prompt=f"{domain} of <person> in a park"))
        again = pixels(generate(f"{domain}2", "--domain", domain, prompt=f"{domain} of <person> in a park"))
        assert said["seed_0.png"] == again["seed_0.png"] == silent[f"{domain}_seed_0.png"]
    assert pixels(generate("as_it_says", prompt="<person> in a park"))["seed_0.png"] not in silent.values()


def test_comparison_shows_each_seed_without_the_person_and_changes_no_picture(generate):
    alone, beside = generate("without", "--seeds", "3,7"), generate("beside", "--seeds", "3,7", "--compare")
    assert pixels(alone) == pixels(beside)
    reports = [(folder / "report.html").read_text() for folder in (alone, beside)]
    assert [report.count("<img") for report in reports] == [2, 4]
    status = [json.loads((folder / "status.json").read_text()) for folder in (alone, beside)]
    assert [s["units"] for s in status] == [2, 4], "what an estimate of the next run is learnt from"
    nobody = pixels(generate("nobody", "--seeds", "3,7", "--strength", "0"))
    shown = [base64.b64encode(picture).decode() for picture in nobody.values()]
    assert [[picture in report for picture in shown] for report in reports] == [[False, False], [True, True]]


def test_dropping_one_group_is_keeping_the_other(generate):
    dropped, kept = generate("dropped", "--drop", "hair"), generate("kept", "--keep", "face")
    assert pixels(dropped) == pixels(kept)
    assert pixels(dropped) != pixels(generate("all"))


def test_groups_are_chosen_for_one_person_of_two(generate):
    two, prompt = "anna=a,ben=b", "<person:anna> and <person:ben>"
    anna = pixels(generate("anna", "--drop", "anna=hair", person=two, prompt=prompt))
    both = pixels(generate("both", "--drop", "hair", person=two, prompt=prompt))
    each = pixels(generate("each", "--drop", "anna=hair,ben=hair", person=two, prompt=prompt))
    assert both == each and anna != both


def test_strength_moves_the_picture_from_the_plain_prompt_to_the_person(generate):
    plain = pixels(generate("none", "--strength", "0"))
    assert plain != pixels(generate("one", "--strength", "1")) != pixels(generate("two", "--strength", "2"))
    assert plain == pixels(generate("other", "--strength", "0", person="b"))


def test_mix_lies_between_two_persons(generate):
    a, b, mix = (pixels(generate(f"mix{i}", person=p)) for i, p in enumerate(("a", "b", "a+b")))
    assert len({tuple(sorted(p.items())) for p in (a, b, mix)}) == 3
    assert mix == pixels(generate("mix3", person="a*2+b*2"))


def test_mix_is_written_as_a_person_file_that_draws_the_same(generate, root):
    mixed = ["predict_tokens", "--preset", "tiny", "--person", "a*0.7+b*0.3", "--run-name"]
    for name in ("mix", "again"):
        cli.main([*mixed, name])
    one, again = (root / "output" / "predict_tokens" / name / "person.safetensors" for name in ("mix", "again"))
    assert one.read_bytes() == again.read_bytes()
    assert pixels(generate("as_a_file", person="mix")) == pixels(generate("at_once", person="a*0.7+b*0.3"))
    parts = [hashlib.sha256((root / name).read_bytes()).hexdigest()[:12] for name in "ab"]
    mix = load_person(one)
    assert mix.notes == {"mixed": f"0.7 of {parts[0]}, 0.3 of {parts[1]}"}
    assert (mix.encoder, mix.references, mix.groups) == ("run/step", 2, (("face", 2), ("hair", 2)))
    assert json.loads((one.parent / "inputs.json").read_text()) == {"encoder": "run/step", **mix.notes}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--person", "a"], "is not one mix"),
        (["--person", "x=a+b"], "is not one mix"),
        (["--person", "a+b", "--images", "x.png"], "give exactly one of the three"),
        (["--person", "a+b", "--references", "2"], "leave out the two"),
        (["--person", "a+b", "--train-run", "first"], "leave out the two"),
        (["--person", "a*0+b*0"], "the weights of a mix"),
    ],
)
def test_what_is_no_mix_is_refused_before_anything_is_written(root, monkeypatch, flags, says):
    monkeypatch.setenv("HARALD_ROOT", str(root))
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict_tokens", "--preset", "tiny", "--run-name", "refused", *flags])
    assert says in str(stop.value.code) and "\n  fix: " in str(stop.value.code)
    assert not (root / "output" / "predict_tokens" / "refused").exists()


def test_person_that_only_one_prompt_mentions_is_drawn_there_alone(generate):
    folder = generate("some", person="x=a,y=b", prompt='["<person:x> in a park", "<person:y> in a park"]')
    one, other = (pixels(folder)[f"prompt_0{n}_seed_0.png"] for n in (1, 2))
    assert one != other
    assert one == pixels(generate("x", person="x=a", prompt="<person:x> in a park"))["seed_0.png"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"prompt": "[<person>]"}, "begins with [ and is not JSON"),
        ({"prompt": '["<person>", 3]'}, "of other things than texts"),
        ({"prompt": "[]"}, "a list without texts"),
        ({"prompt": '["<person>", "a park"]'}, "has no placeholder"),
        ({"prompt": '["<person:x>"]', "person": "x=a,y=b"}, "does not mention ['y']"),
        ({"--domain": ","}, "--domain is ','"),
        ({"--domain": "komic"}, "did you mean 'comic'?"),
        ({"--domain": "photo,comic"}, "begins with 'photo of' and the domain is 'comic'"),
        ({"--domain": "../x"}, "--domain is '../x'"),
        ({"--seeds": "1,x"}, "--seeds is '1,x'"),
        ({"--seeds": "-1"}, "--seeds is '-1'"),
        ({"--seeds": "1", "--count": "2"}, "give one of the two"),
        ({"--seeds": ",".join(map(str, range(300)))}, "make 300 pictures"),
        ({"--strength": "-1"}, "--strength is -1"),
        ({"--strength": "nan"}, "--strength is nan"),
        ({"--drop": "hare"}, "did you mean 'hair'?"),
        ({"--keep": "hare"}, "did you mean 'hair'?"),
        ({"--drop": "ben=hair"}, "<person:ben>, who is not in --person"),
        ({"--drop": "face,hair"}, "no group of the person is left"),
        ({"person": "a*x+b"}, "the weight 'x'"),
        ({"person": "a*0+b*0"}, "the weights of a mix"),
        ({"person": "a+nobody"}, "there is no person file nobody"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(generate, root, flags, says):
    rest = [part for name, value in flags.items() if name.startswith("--") for part in (name, value)]
    words = {name: value for name, value in flags.items() if not name.startswith("--")}
    with pytest.raises(SystemExit) as stop:
        generate("refused", *rest, **words)
    assert says in str(stop.value.code) and "\n  fix: " in str(stop.value.code)
    assert not (root / "output" / "generate" / "refused").exists()
