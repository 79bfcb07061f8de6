"""Messages: nothing secret is in them, whatever form it has, and nothing else is hidden."""

import pytest

from ablate import tracking
from ablate.messages import public
from ablate.tracking.addresses import LONGEST_REASON

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM2NyZXQiLCJuYW1lIjoiczNjcmV0In0.s3cret-s3cret_s3cret"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("https://me:s3cret@host:5000/x", "https://me:***@host:5000/x"),
        ("https://s3cret@host/x", "https://***@host/x"),
        ("https://me:s3cret/s3cret@s3cret@host/db", "https://me:***@host/db"),
        ("https://me@corp:s3cret@host", "https://***@host"),
        ("postgresql+psycopg2://me:s3cret@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("(https://a/b,ftp://me:s3cret@host)", "(https://a/b,ftp://me:***@host)"),
        ("https://h/x?password=s3cret&a=1", "https://h/x?password=***&a=1"),
        ("mysql://h/db?user=me&api_key=s3cret;s3cret", "mysql://h/db?user=me&api_key=***"),
        ("https://h/b?sv=1&sig=s3cret%3D&se=2", "https://h/b?sv=1&sig=***&se=2"),
        ("https://h/b?X-Amz-Signature=s3cret&X-Amz-Date=1", "https://h/b?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://h/b?X-Amz-Credential=s3cret", "https://h/b?X-Amz-Credential=***"),
        ("Server=h;UID=me;PWD=s3cret;Encrypt=yes", "Server=h;UID=me;PWD=***;Encrypt=yes"),
        ("Driver={x};pwd={s3cret;s3cret};y=1", "Driver={x};pwd=***;y=1"),
        ("host=h pass=s3cret user=me", "host=h pass=*** user=me"),
        ("MLFLOW_TRACKING_PASSWORD='s3cret s3cret' failed", "MLFLOW_TRACKING_PASSWORD=*** failed"),
        ("AWS_SECRET_ACCESS_KEY=s3cret", "AWS_SECRET_ACCESS_KEY=***"),
        (
            "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Ds3cret%3BEncrypt%3Dyes",
            "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D***%3BEncrypt%3Dyes",
        ),
        ("?odbc_connect=PWD%253Ds3cret%253BA%253D1", "?odbc_connect=PWD%253D***%253BA%253D1"),
        ("?odbc_connect=pwd%3D%7Bs3cret%3Bs3cret%7D%3BA", "?odbc_connect=pwd%3D***%3BA"),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic s3cret'}", "{'Authorization': 'Basic ***'}"),
        ("sent bearer s3cret to h", "sent bearer *** to h"),
        ('{"user": "me", "access_token": "s3cret s3cret"}', '{"user": "me", "access_token": "***"}'),
        (f"the token {JWT} has expired", "the token *** has expired"),
        (JWT[:30], "***"),
    ],
)
def test_what_is_secret_is_hidden_and_nothing_beside_it(written, shown):
    assert public(written) == shown
    assert public(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////tmp/x.db",
        "write to me@example.org, not to https://host/x",
        "https://host/x?mail=me@example.org&design=2&page_token_count",
        "cell augment.crop=none, passes=20, keys=3, compass=n",
        "a bearer token is wanted",
        "tags.`ablate.key` = 'run/3'",
        "(sqlite3.OperationalError) database is locked",
    ],
)
def test_what_is_not_secret_stays(text):
    assert public(text) == text


def test_a_secret_is_hidden_before_a_message_is_cut():
    error = RuntimeError(f"https://me:{'s3cret' * 400}@host does not answer, nor with {JWT * 20}")
    shown = tracking.first_line(error)
    assert "s3cret" not in shown
    assert shown.startswith("https://me:***@host does not answer")
    assert len(shown) <= LONGEST_REASON


@pytest.mark.parametrize(
    "part",
    ["://a:", "?", "password='", "pwd%3D", '"token": "', "eyJ", "a.", "bearer ", "PWD={", "eyJaaaaaaaa."],
)
def test_a_long_message_is_done_in_linear_time(part):
    text = part * (300_000 // len(part))  # in quadratic time it would take hours
    assert len(public(text)) <= 2 * len(text)
