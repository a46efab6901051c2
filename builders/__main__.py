from builders.cli.main import main

main()
