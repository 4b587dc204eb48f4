"""What people and programs touch: the command line; later the API and the console.

Must not hold logic of its own: everything a face can do is a call on the floors below.
"""
