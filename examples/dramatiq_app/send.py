"""Send the work of a month for somebody, who may then watch it: ``python send.py ada``."""

import sys

from invoices import mail, render

owner = sys.argv[1] if len(sys.argv) > 1 else "dev"
first = render.message_with_options(args=("October", [101, 102, 103, 104, 105]), owner=owner)
pipe = (first | mail.message("ada@example.com")).run()
print(pipe.messages[0].message_id)
