from fakeit_train.cli import main

main()
