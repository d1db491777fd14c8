"""The paper's studies, one per file: trained models in, tables out."""
