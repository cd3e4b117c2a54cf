"""What every Runtime keeps to: run on the fake always, on a real agent where VMs can run."""
