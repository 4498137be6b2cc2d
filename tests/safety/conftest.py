"""What the tests of safety/ share: prompts to judge, and classifiers that are read anew."""
import pytest

from safety import detector, frames, minilm, prompts

ASK = "a red circle moving left slowly"
FORBIDDEN = "a man beheading a woman with an axe"


@pytest.fixture
def ask():
    """A prompt of the toy world."""
    return ASK


@pytest.fixture
def forbidden():
    """A prompt that is refused as extreme violence."""
    return FORBIDDEN


@pytest.fixture
def fresh_classifiers():
    """Classifiers and MiniLM are read anew in this test, and again after it, even where it fails."""
    readers = (prompts.classifier, frames.classifier, detector.classifier, minilm.load_minilm)
    for reader in readers:
        reader.cache_clear()
    yield
    for reader in readers:
        reader.cache_clear()
