"""The tests.

This file is load-bearing: without it pytest puts tests/ first on the path, where `import rules`
would find tests/rules.
"""
