"""Downloads from Kaggle, resumed and checked; a report of what is missing for them."""
