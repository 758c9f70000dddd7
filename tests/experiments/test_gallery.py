import baselines
from experiments import gallery


def test_every_scheduler_of_the_registry_gets_a_panel_with_batches(tmp_path):
    gallery.main(["--out", str(tmp_path / "gallery.png")])
    assert (tmp_path / "gallery.png").stat().st_size > 20_000
    for scheduler in baselines.REGISTRY.values():
        entries = gallery.run(scheduler).batch_entries
        assert len(entries) and (entries.tokens >= 1).all(), scheduler.name
