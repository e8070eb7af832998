"""What is used of Kaggle's client beyond its public API: each thing by name, in one module alone.

A release of `kaggle` or `kagglesdk` that fails here is not admitted by `pyproject.toml` before
`segdata.kaggle.api` follows it. What the client does with a server is in `test_kaggle.py`.
"""

import ast
import importlib.metadata
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from segdata.kaggle import api

ROOT = pathlib.Path(__file__).parent.parent


def client() -> Any:
    with api._import_offline():
        from kaggle.api.kaggle_api_extended import KaggleApi

    return KaggleApi


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function: Callable[..., Any]) -> str:
    return inspect.getsource(function)


def http() -> Any:
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    return KaggleHttpClient


def credentials() -> Any:
    from kagglesdk import KaggleCredentials

    return KaggleCredentials


def opens_a_session() -> bool:
    from kagglesdk import KaggleClient, kaggle_env

    opened: Any = KaggleClient(env=kaggle_env.KaggleEnv.TEST, api_token="KGAT_none").http_client()
    with opened:
        return isinstance(opened, http()) and callable(opened._session.mount)


def endpoint() -> str:
    from kagglesdk import kaggle_env

    return kaggle_env.get_endpoint(kaggle_env.get_env())


CONTRACT: dict[str, Callable[[], object]] = {
    "importing kaggle signs in by KaggleApi.authenticate, which asks by KaggleHttpClient.call": (
        lambda: (
            "api.authenticate()" in source(inspect.getmodule(__import__("kaggle")))  # pyright: ignore
            and parameters(http().call)
            == ["self", "service_name", "request_name", "request", "response_type"]
        )
    ),
    "KaggleApi.authenticate() takes no arguments that must be given": lambda: all(
        p.default is not p.empty
        for p in list(inspect.signature(client().authenticate).parameters.values())[1:]
    ),
    "KaggleApi.build_kaggle_client()": lambda: parameters(client().build_kaggle_client) == ["self"],
    "KaggleApi downloads with what build_kaggle_client gives, by download_file(response, …)": (
        lambda: (
            parameters(client().download_file)[:2] == ["self", "response"]
            and all(
                "self.build_kaggle_client()" in source(function)
                and "self.download_file(response, " in source(function)
                for function in (
                    client().competition_download_file,
                    client().dataset_download_files,
                )
            )
        )
    ),
    "KaggleApi.competition_download_file(competition, file_name, path, force)": lambda: (
        parameters(client().competition_download_file)[:5]
        == ["self", "competition", "file_name", "path", "force"]
    ),
    "KaggleApi.dataset_download_files(dataset, path, force)": lambda: (
        parameters(client().dataset_download_files)[:4] == ["self", "dataset", "path", "force"]
    ),
    "kaggle_env.get_env() and get_endpoint(env) tell the server": lambda: (
        endpoint() == "https://api.kaggle.com"
    ),
    "KaggleHttpClient keeps the server as _env and _endpoint": lambda: (
        "self._env = " in source(http().__init__) and "self._endpoint = " in source(http().__init__)
    ),
    "KaggleHttpClient keeps a session of requests as _session once it is entered": opens_a_session,
    "KaggleCredentials.save(…) and delete(…) are methods": lambda: (
        parameters(credentials().save)[0] == parameters(credentials().delete)[0] == "self"
    ),
}


@pytest.mark.parametrize("what", CONTRACT)
def test_the_client_is_as_it_is_used(what, monkeypatch, tmp_path):
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        problem = "" if CONTRACT[what]() else "it does not"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        versions = ", ".join(
            f"{n} {importlib.metadata.version(n)}" for n in ("kaggle", "kagglesdk")
        )
        pytest.fail(f"{versions} is not as used: {what}: {problem}", pytrace=False)


def test_one_module_alone_imports_the_client():
    for path in (ROOT / "segdata").rglob("*.py"):
        if path == ROOT / "segdata" / "kaggle" / "api.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    assert not {n.name.split(".")[0] for n in names} & {"kaggle", "kagglesdk"}, path
                case ast.ImportFrom(module=str(module)):
                    assert module.split(".")[0] not in ("kaggle", "kagglesdk"), path
