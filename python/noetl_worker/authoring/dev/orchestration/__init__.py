"""The decisions of a plane about an execution: which step follows, and which commands are issued."""
