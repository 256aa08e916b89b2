import board
import pytest
from starlette.testclient import TestClient


@pytest.fixture
def grip_edge():
    return board.edge


@pytest.fixture
def client():
    board.goals[7] = 0
    with TestClient(board.app) as client:  # in a with block, so that its event loop goes on
        yield client
