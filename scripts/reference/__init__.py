"""What the generated parts of docs/ are made from: tables of the code, samples of its output."""
