"""Fine-tuning studies: models on tasks over seeds, their scores with intervals, and the report."""
