"""From numbers to tables, figures and pages."""
