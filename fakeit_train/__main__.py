from fakeit_commands import train

train()
