from fakeit_commands import build

build()
