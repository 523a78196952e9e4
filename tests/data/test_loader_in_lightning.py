"""Lightning must save and restore the loader's position; the test fails if either side stops doing its part."""

import lightning
import pytest
import torch

from difflab.config.data import DataConfig
from difflab.data.build import build_train_loader


class Recorder(lightning.LightningModule):
    """Notes the samples of every batch it is trained on; can fail in the middle."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at
        self.seen = []

    def training_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(batch["index"].tolist())
        return self.weight * batch["image"].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(path, total, workers=0):
    config = DataConfig(path=str(path), image_size=8, batch_size=4, workers=workers)
    return build_train_loader(config, seed=0, total_batches=total)


def fit(module, train_loader, folder, max_steps, ckpt_path=None):
    saving = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_last=True)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train_loader, ckpt_path=ckpt_path)
    return module.seen


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_resumed_by_lightning_sees_the_very_next_batch(tiny_data, tmp_path, workers):
    expected = [batch["index"].tolist() for batch in loader(tiny_data, 12)]
    first = Recorder(fail_at=7)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(first, loader(tiny_data, 12, workers), tmp_path, 12)
    assert first.seen == expected[:7]
    rest = fit(Recorder(), loader(tiny_data, 12, workers), tmp_path, 12, ckpt_path=tmp_path / "last.ckpt")
    assert rest == expected[7:]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_finished_run_is_made_longer(tiny_data, tmp_path):
    expected = [batch["index"].tolist() for batch in loader(tiny_data, 12)]
    assert fit(Recorder(), loader(tiny_data, 6), tmp_path, 6) == expected[:6]
    assert fit(Recorder(), loader(tiny_data, 12), tmp_path, 12, ckpt_path=tmp_path / "last.ckpt") == expected[6:]
