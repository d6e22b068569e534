"""`jaxnmt visualize`: how a model translates one sentence, as a record of plain numbers and as a page that draws it."""
