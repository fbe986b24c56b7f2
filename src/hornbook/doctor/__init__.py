"""The certificate: does this model do what a language model must? A file a kind of question, a function a check."""
