"""Kind `workbook`."""
