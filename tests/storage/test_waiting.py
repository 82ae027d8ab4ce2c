"""Products of a job wait for each other: what ends the job, none is lost."""

import os

import pytest

from pacbed.exceptions import StoreError
from pacbed.storage.waiting import finish, put_aside, waiting


@pytest.fixture
def products(tmp_path):
    made = [tmp_path / name for name in ("model.keras", "history.csv", "settings.json")]
    for product in made:
        product.write_text(product.name)
    return made


@pytest.mark.parametrize("done", [0, 2, 3])
def test_a_job_killed_between_the_names_has_all_products(products, done):
    names = [product.name for product in products]
    put_aside(products)
    assert not any(product.exists() for product in products)
    finish(products[:done])
    put_aside(products)
    assert [waiting(product).read_text() for product in products] == names
    finish(products)
    assert [product.read_text() for product in products] == names
    assert len(list(products[0].parent.iterdir())) == len(products)


def test_what_is_newer_waits(products):
    first, second, third = products
    put_aside(products)
    for product in (first, second):
        product.write_text("another")
    os.utime(first, (1, 1))
    os.utime(waiting(second), (1, 1))
    put_aside(products)
    kept = [waiting(product).read_text() for product in products]
    assert kept == [first.name, "another", third.name]


def test_what_cannot_be_moved_is_named(products, tmp_path):
    (waiting(products[1]) / "in the way").mkdir(parents=True)
    os.utime(waiting(products[1]), (1, 1))
    with pytest.raises(StoreError, match=r"cannot move .*history\.csv aside"):
        put_aside(products)
    assert products[1].read_text() == "history.csv"
    with pytest.raises(StoreError, match=r"cannot give .*settings\.json its name"):
        finish(products[2:])
