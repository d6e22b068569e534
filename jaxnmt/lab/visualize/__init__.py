"""`jaxnmt visualize`: what a model does with one sentence, as a record of plain numbers and as a page that draws it."""
