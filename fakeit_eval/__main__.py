from fakeit_commands import evaluate

evaluate()
