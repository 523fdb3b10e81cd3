"""Where the shipped numbers come from: long measurements that readers of the notebooks never have to run."""
