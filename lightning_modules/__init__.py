"""One LightningModule per task, and the networks they train."""
