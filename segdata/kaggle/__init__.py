"""Downloads from Kaggle, resumed and checked; what is missing for them."""
