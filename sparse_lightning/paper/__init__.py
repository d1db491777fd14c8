"""The paper: its claims, each judged by a rule, and the report on them."""
