"""Reports that can be sent around: a document of sections, tables and charts, and its forms (HTML, Markdown, CSV, PDF).

`content` fills a document from the records of a study; `charts` draws SVG; `page`, `flat` and `pdf` write files.
"""
