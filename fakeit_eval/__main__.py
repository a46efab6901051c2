from fakeit_eval.cli import main

main()
