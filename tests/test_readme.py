import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_blocks_of_the_readme_run_as_they_stand(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "13.87" in printed
    assert "shortest_first" in printed
    assert names["result"].drained and len(names["results"]) == 20
