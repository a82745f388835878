"""Who the site's users and guests are, whether they may come in, and under which account their jobs run."""
