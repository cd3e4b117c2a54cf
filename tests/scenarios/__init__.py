"""A pod's life, told from outside: what users do, what they see. Named for behaviour."""
