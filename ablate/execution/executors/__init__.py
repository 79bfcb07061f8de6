"""Where jobs run. An executor places tasks and reports what became of them; it decides nothing."""
