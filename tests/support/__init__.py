"""What tests stand on: a clock of their own, fakes of the API, and a node in memory."""
