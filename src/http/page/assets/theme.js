// Runs where it stands: what follows has the theme that was chosen, and what needs scripts may be seen.
{
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("daybook-theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  } catch {
    // Without storage the system's choice stands.
  }
}
