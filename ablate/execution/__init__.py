"""Running jobs: stages, scheduler, worker, searches, and the executors that place tasks."""
