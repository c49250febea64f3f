"""Published weights: downloads, what torch.hub keeps of them, and what is refused."""

import hashlib
import shutil
import warnings
from threading import Thread
from urllib.error import URLError

import pytest
import torch

from lfgcl_env.networks import IMAGENET, PUBLISHED, build_network, load_baseline


def test_published_urls_end_with_a_hash():
    for weights in PUBLISHED.values():
        assert weights.url.startswith("https://github.com/")
        assert len(bytes.fromhex(weights.path.stem.rsplit("-", 1)[-1])) == 4


@pytest.mark.data("resnet20")
def test_published_keys_are_mapped_to_ours():
    baseline = load_baseline("resnet20")
    raw = torch.load(PUBLISHED["resnet20"].path, map_location="cpu", weights_only=True)
    state = baseline.network.state_dict()
    for key, value in raw["state_dict"].items():
        assert torch.equal(state[key.removeprefix("module.")], value)
    assert (baseline.weights, baseline.normalization) == ("published", IMAGENET)


@pytest.mark.data("resnet20")
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_cached_checkpoint_is_named(torch_home, damage):
    file = torch_home / PUBLISHED["resnet20"].path.name
    if damage == "foreign":
        torch.save({"state_dict": build_network("resnet20").state_dict()}, file)
    elif damage == "truncated":
        torch.save(build_network("resnet20").state_dict(), file)
        file.write_bytes(file.read_bytes()[:100_000])
    else:
        file.touch()
    with pytest.raises(ValueError, match=r"resnet20-12fca82f.th.*damaged.*delete it"):
        load_baseline("resnet20")


def test_without_a_network_connection_the_error_says_what_to_do(torch_home, monkeypatch):
    def refuse(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(OSError, match=r"cannot download https.*Name or service.*by hand"):
        load_baseline("vgg16_bn")
    with pytest.raises(OSError, match=r"cannot download https://download.pytorch.org"):
        load_baseline("torchvision:resnet18")


def test_other_networks_are_built_during_a_download(torch_home, monkeypatch):
    def refuse_later(*_, **__):
        other = Thread(target=load_baseline, args=("resnet20", "random"), daemon=True)
        other.start()
        other.join(timeout=60)
        in_time.append(not other.is_alive())
        raise URLError("Name or service not known")

    in_time = []
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse_later)
    with pytest.raises(OSError, match="cannot download"):
        load_baseline("torchvision:resnet18")
    assert in_time == [True]


def test_a_download_with_another_hash_is_refused(torch_home, monkeypatch):
    def send(*_, **__):
        raise RuntimeError('invalid hash value (expected "12fca82f", got "abc")')

    monkeypatch.setattr("torch.hub.download_url_to_file", send)
    with pytest.raises(ValueError, match="not the published checkpoint"):
        load_baseline("resnet20")


def test_published_weights_of_another_structure_are_refused():
    with pytest.raises(ValueError, match=r"published weights of resnet56 have .* not "):
        load_baseline("resnet56", num_classes=100)


@pytest.mark.data("resnet20")
def test_a_copy_of_the_published_file_keeps_its_normalization(tmp_path):
    path = shutil.copy(PUBLISHED["resnet20"].path, tmp_path / "copy.th")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_baseline("resnet20", path).normalization == IMAGENET


def test_torchvision_weights_are_checked_and_bring_their_arguments(torch_home, monkeypatch):
    from torchvision.models import GoogLeNet_Weights

    url = GoogLeNet_Weights.DEFAULT.url
    trained = build_network("torchvision:googlenet", init_weights=False, num_classes=1000)
    file = torch_home / url.rsplit("/", 1)[-1]
    torch.save(trained.state_dict(), file)
    with pytest.raises(ValueError, match=r"googlenet-1378be20.pth.*damaged"):
        load_baseline("torchvision:googlenet")
    monkeypatch.setattr("lfgcl_env.networks.published.sha256", lambda path: "1378be20")
    baseline = load_baseline("torchvision:googlenet")
    assert baseline.arguments == {"transform_input": True, "aux_logits": False}
    rebuilt = build_network(baseline.name, init_weights=False, **baseline.arguments)
    rebuilt.load_state_dict(baseline.network.state_dict())


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.data(n)) for n in PUBLISHED],
)
def test_published_files_load_and_have_their_hash(name):
    path = PUBLISHED[name].path
    digits = path.stem.rsplit("-", 1)[-1]
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits)
    assert load_baseline(name).num_classes == PUBLISHED[name].num_classes
