"""Measuring, tuning and forecasting of speed and memory."""
