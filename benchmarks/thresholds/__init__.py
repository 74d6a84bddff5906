"""What each threshold of the verdict is good for, by approximations whose errors are known."""
